//! Docker's HTTP, and only that.
