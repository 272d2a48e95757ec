"""What `maskport doctor` looks at: this machine, and a given file."""
