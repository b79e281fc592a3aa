# shellcheck shell=sh
# Who works at a trial copy of an archive reads so before each command; pacs-screen.service leaves the word.
if [ -n "$BASH_VERSION" ]; then
    PROMPT_COMMAND='[ ! -e /run/pacs-screen/trial ] || printf "[TRIAL COPY] "'
fi
