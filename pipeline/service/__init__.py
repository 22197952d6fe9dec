"""What runs: processes, threads, and the loops between them. Only here are threads and processes started."""
