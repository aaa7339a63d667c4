"""What makes an LM faster on a CPU and changes what it computes by rounding alone."""
