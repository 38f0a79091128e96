"""Many runs with other parameters, on one machine or on Ray, and what came of them."""
