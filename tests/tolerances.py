"""Every numerical tolerance of the tests, each with its reason."""

# Relative residual that counts as zero for float32 losses: eps(float32) is 1.19e-7.
FLOAT32_RESIDUAL = 1.2e-7

# Sums of float64 numbers in another order differ by a few units in the last place.
REORDERED_SUM = 1e-12
