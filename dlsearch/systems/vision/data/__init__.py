"""Images: data sets in memory or streamed, augmentation, distorted digits."""
