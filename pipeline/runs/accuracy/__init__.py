"""How right a map is: compare it with labels or a reference, sample points for people, fit a temperature."""
