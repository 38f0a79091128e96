"""Find what prevents the release of a network: the mistake, its line, and a fix that was tried."""
