"""What keeps promise 1 across devices: ledger, links, liveness, transport."""
