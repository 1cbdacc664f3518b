//! A failed start in Docker's words, which scripts look for.

use crate::error::Error;
use nix::errno::Errno;
use std::io;
use tritium_supervisor::protocol::Failure;

/// What Docker puts before the reason when a container does not start.
const CREATE: &str = "failed to create task for container: failed to create shim task: OCI runtime \
                      create failed: runc create failed: ";
/// The same for `docker exec`.
const EXEC: &str = "OCI runtime exec failed: exec failed: ";

/// An error in Go's words: in lower case.
pub(super) fn go_words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), errno_words)
}

fn errno_words(number: i32) -> String {
    let words = Errno::from_raw(number).desc();
    let mut letters = words.chars();
    match (letters.next(), letters.next()) {
        // `RPC struct is bad` stays as it is.
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain([second]).chain(letters).collect()
        }
        _ => words.to_owned(),
    }
}

/// A limit of the container that the kernel refuses.
pub(super) fn limit(reason: &str) -> Error {
    let message = format!(
        "{CREATE}unable to start container process: error during container init: error setting \
         cgroup config for procHooks process: {reason}"
    );
    Error::NotStarted { code: 128, message }
}

/// Why the first process did not start.
pub(super) fn create(failure: &Failure) -> Error {
    not_started(CREATE, failure)
}

/// Why an exec did not start.
pub(super) fn exec(failure: &Failure) -> Error {
    not_started(EXEC, failure)
}

fn not_started(prefix: &str, failure: &Failure) -> Error {
    let reason = match &failure.message {
        Some(message) => message.clone(),
        None => {
            format!("error during container init: {}: {}", failure.step, errno_words(failure.errno))
        }
    };
    let message = if is_dockers_own(&reason) {
        reason
    } else {
        format!("{prefix}unable to start container process: {reason}")
    };
    Error::NotStarted { code: failure.code, message }
}

/// What dockerd finds out before it calls its runtime.
fn is_dockers_own(reason: &str) -> bool {
    ["unable to find ", "Cannot mkdir", "uids and gids"]
        .iter()
        .any(|beginning| reason.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(step: &str, errno: i32, code: i32, message: Option<&str>) -> Failure {
        Failure { step: step.into(), errno, code, message: message.map(str::to_owned) }
    }

    #[test]
    fn a_missing_command_reads_as_dockers() {
        let words = "exec: \"nope\": executable file not found in $PATH";
        let missing = failure("exec nope", 2, 127, Some(words));
        assert_eq!(
            create(&missing).to_string(),
            "failed to create task for container: failed to create shim task: OCI runtime create \
             failed: runc create failed: unable to start container process: exec: \"nope\": \
             executable file not found in $PATH"
        );
        assert_eq!(
            exec(&missing).to_string(),
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \
             \"nope\": executable file not found in $PATH"
        );
    }

    #[test]
    fn a_failed_step_is_part_of_the_containers_init() {
        let step = failure("open /proc/sys/net/foo", 2, 128, None);
        assert!(create(&step).to_string().ends_with(
            "unable to start container process: error during container init: open \
             /proc/sys/net/foo: no such file or directory"
        ));
    }

    #[test]
    fn what_dockerd_itself_finds_has_no_prefix() {
        let words = "unable to find user nope: no matching entries in passwd file";
        let user = failure("user nope", 2, 126, Some(words));
        assert_eq!(create(&user).to_string(), words);
        assert_eq!(exec(&user).to_string(), words);
    }
}
