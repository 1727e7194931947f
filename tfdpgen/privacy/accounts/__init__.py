"""What the ledger is made of: who examples are, the database, its history, and what an account has come to."""
