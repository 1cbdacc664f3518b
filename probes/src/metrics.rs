//! Every exported name, unit and help text, in one table.
