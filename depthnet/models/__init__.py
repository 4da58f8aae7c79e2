"""Networks: encoder, decoder, the whole, and the published baselines."""
