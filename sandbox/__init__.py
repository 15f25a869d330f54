"""The toy world: words, policies, preferences, losses, dynamics and measures. It knows no theorem and no paper."""
