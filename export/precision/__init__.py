"""Half precision: the policy, the formats, and the emulator that measures their error."""
