import misc  # noqa: F401 -- before torch: python -m step.show begins here
