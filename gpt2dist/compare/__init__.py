"""Many runs side by side: tables, the dollars-against-loss frontier and scaling fits."""
