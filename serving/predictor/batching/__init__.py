"""Dynamic batching: a bounded request queue and the thread that runs forward passes."""
