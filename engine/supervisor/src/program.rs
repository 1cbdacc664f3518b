//! Which file a command's name means, as Go's `exec.LookPath` finds it (and so
//! runc and Docker's users).

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::{Errno, Result};
use tritium_supervisor::protocol::Failure;

use crate::failure::{NOT_EXECUTABLE, NOT_FOUND, sentence, with_message};

/// The path to execute for `name`, with the `PATH` of `env`.
pub(crate) fn find(name: &str, env: &[String]) -> std::result::Result<String, Failure> {
    if name.contains('/') {
        return match check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(errno @ (Errno::ACCESS | Errno::ISDIR | Errno::PERM)) => {
                let message = format!("exec: \"{name}\": {}", sentence(errno));
                Err(Failure {
                    code: NOT_EXECUTABLE,
                    ..with_message(format!("exec {name}"), errno, message)
                })
            }
            Err(errno) => {
                let message = format!("exec: \"{name}\": stat {name}: {}", sentence(errno));
                Err(Failure {
                    code: NOT_FOUND,
                    ..with_message(format!("exec {name}"), errno, message)
                })
            }
        };
    }
    // The last one counts, as for runc, which sets them one after the other.
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    path.split(':')
        .filter(|directory| !name.is_empty() && directory.starts_with('/'))
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
        .find(|candidate| check(candidate).is_ok())
        .ok_or_else(|| {
            let message = format!("exec: \"{name}\": executable file not found in $PATH");
            with_message(format!("exec {name}"), Errno::NOENT, message)
        })
}

/// Whether `path` is a file that may be executed.
fn check(path: &str) -> Result<()> {
    let mode = rustix::fs::stat(path)?.st_mode;
    if FileType::from_raw_mode(mode) == FileType::Directory {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    if mode & 0o111 == 0 { Err(Errno::ACCESS) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_path_and_a_path_is_taken_as_it_is() {
        let env = ["PATH=/nope:relative:/bin/".to_owned()];
        assert_eq!(find("sh", &env).unwrap(), "/bin/sh");
        assert_eq!(find("/bin/sh", &[]).unwrap(), "/bin/sh");
    }

    #[test]
    fn what_cannot_be_executed_is_said_as_docker_says_it() {
        let said = |name| {
            let failure = find(name, &["PATH=/bin".to_owned()]).unwrap_err();
            (failure.code, failure.message.unwrap())
        };
        let missing = "exec: \"nope\": executable file not found in $PATH";
        assert_eq!(said("nope"), (127, missing.to_owned()));
        assert_eq!(said(""), (127, missing.replace("nope", "")));
        let missing = "exec: \"/nope\": stat /nope: no such file or directory";
        assert_eq!(said("/nope"), (127, missing.to_owned()));
        for name in ["/etc", "/etc/passwd"] {
            assert_eq!(said(name), (126, format!("exec: \"{name}\": permission denied")));
        }
    }
}
