"""Whether what Sightline shows as evidence is what an answer rests on."""
