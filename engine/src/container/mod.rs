//! (room: container)
