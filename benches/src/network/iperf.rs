//! Bytes per second, by iperf3.

use super::place::Place;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Gbit/s from `client` to the server, which is reached at `to`.
pub(super) fn run(
    server: &Place,
    client: &Place,
    (address, port): (&str, u16),
    seconds: u32,
) -> Result<f64> {
    let mut serve = server.command("iperf3");
    let inside = super::IPERF;
    serve.args(["--server", "--one-off", "--port", &inside.to_string()]);
    let _server = server.serve(&mut serve, inside)?;
    let output = client
        .command("iperf3")
        .args(["--client", address, "--port", &port.to_string(), "--json"])
        .args(["--time", &seconds.to_string()])
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("iperf3 says no JSON: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    ensure!(output.status.success(), "iperf3 to {address}: {}", report["error"]);
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 counts no bits")? / 1e9)
}
