"""What every other folder stands on: types, errors, atomic files, images, cameras, devices."""
