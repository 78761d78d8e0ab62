"""PFCP (TS 29.244): a lossless codec and the transactions of a UDP endpoint. A leaf: imports nothing of ours."""
