//! Makes a spec run: control groups, supervisors, seccomp, adoption.
