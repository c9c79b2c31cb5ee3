"""The miniature's card: its judge, and the tables of `wegen mini eval`."""
