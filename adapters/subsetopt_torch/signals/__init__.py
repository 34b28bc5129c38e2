"""What is computed per sample for a policy: losses, gradients, norms."""
