"""Who answers chats: worker processes with models of this machine, and other servers."""
