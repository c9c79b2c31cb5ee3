"""The `wegen` command, a file for each group of subcommands."""
