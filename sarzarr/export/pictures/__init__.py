"""Pictures of what a store holds, and of how it is split; nothing here returns data."""
