"""The online charging system: a ledger in PostgreSQL behind Nchf_ConvergedCharging (TS 32.291)."""
