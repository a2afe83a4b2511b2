//! A plan is a list of edits over the bytes of one message; apply makes the new bytes, prove checks them.
