"""The command line of DQAS: it parses, calls and prints. A command a file; no logic of its own."""
