"""The policy: a LangChain chat model that keeps tokens, and the engines behind it."""
