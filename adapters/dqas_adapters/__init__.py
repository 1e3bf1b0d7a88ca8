"""Other people's code and files, each behind one plugin that uses public hooks only."""
