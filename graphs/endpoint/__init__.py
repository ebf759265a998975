"""An OpenAI-compatible endpoint in front of the policy that records what it samples."""
