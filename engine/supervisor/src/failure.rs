//! Why a process could not be started, in the words that Docker's users know.

use rustix::io::Errno;
use tritium_supervisor::protocol::Failure;

/// Docker's code for a command that is not there.
pub(crate) const NOT_FOUND: i32 = 127;
/// Docker's code for one that is there and may not run.
pub(crate) const NOT_EXECUTABLE: i32 = 126;
/// Docker's code for all else.
const OTHER: i32 = 128;

/// The kernel's sentence for `errno`, in lower case as Go's runtime has it.
pub(crate) fn sentence(errno: Errno) -> String {
    let text = nix::errno::Errno::from_raw(errno.raw_os_error()).desc();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// `step` failed while the container was being made.
pub(crate) fn during_init(step: impl Into<String>, errno: Errno) -> Failure {
    let step = step.into();
    let message = format!("error during container init: {step}: {}", sentence(errno));
    with_message(step, errno, message)
}

/// As [`during_init`], but the sentence is the caller's.
pub(crate) fn with_message(step: impl Into<String>, errno: Errno, message: String) -> Failure {
    let code = match errno {
        Errno::NOENT => NOT_FOUND,
        Errno::ACCESS | Errno::ISDIR => NOT_EXECUTABLE,
        _ => OTHER,
    };
    Failure { step: step.into(), errno: errno.raw_os_error(), code, message: Some(message) }
}

/// Names the step that a system call belongs to.
pub(crate) trait Step<T> {
    /// For a step of making the container.
    fn step(self, step: &str) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|errno| during_init(step, errno))
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| during_init(step, errno_of(&error)))
    }
}

impl<T> Step<T> for Result<T, nix::errno::Errno> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.map_err(|errno| during_init(step, Errno::from_raw_os_error(errno as i32)))
    }
}

/// The errno in an error of the standard library; `EIO` where it made its own.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_those_of_docker() {
        assert_eq!(sentence(Errno::NOENT), "no such file or directory");
        assert_eq!(sentence(Errno::ACCESS), "permission denied");
        let failure = during_init("open /proc/sys/net/foo", Errno::NOENT);
        assert_eq!(failure.code, NOT_FOUND);
        assert_eq!(
            failure.message.as_deref(),
            Some("error during container init: open /proc/sys/net/foo: no such file or directory")
        );
    }
}
