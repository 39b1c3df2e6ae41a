"""The only door: who may ask, what is asked, and that nothing leaves without a valid release."""
