"""The commands of `scifm`, one file each: `command(words) -> exit status`."""
