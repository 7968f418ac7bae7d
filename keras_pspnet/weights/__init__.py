"""Read the checkpoints of other projects as named arrays; nothing in them is executed."""
