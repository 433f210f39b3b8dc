"""One self-contained HTML page from figures: no network, no server, readable on paper and by everybody."""
