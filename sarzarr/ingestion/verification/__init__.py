"""The verification of a store, its repair from its sources, and the seal on what was changed on purpose."""
