"""A chat room on every node: messages as a set that grows, presence as votes (`python -m examples.chat`).

`python -m examples.chat.demo` starts three proxies, chats over all of them, kills one and lets it come back.
"""
