"""What engines share about checkpoints: fingerprints, the Hub, rendering of conversations, reasoning blocks."""
