"""The commands: one file each, no logic beyond parsing, progress and printing."""
