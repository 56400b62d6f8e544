"""One record a method: its options worth testing, and what it does to them."""
