//! (room: service)
