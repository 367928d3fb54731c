"""What cells will cost: from records, from probes, from a closed form."""
