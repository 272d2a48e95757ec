"""Half precision: the policy, the formats, and the emulator that judges what they cost."""
