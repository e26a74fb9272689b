"""What engines share about checkpoints: description, fingerprints, the Hub, rendering of conversations, reasoning."""
