"""One file per published result, holding only what differs from the defaults."""
