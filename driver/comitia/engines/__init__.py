"""The programs that sample: i-PI, and what is needed to run and to read it."""
